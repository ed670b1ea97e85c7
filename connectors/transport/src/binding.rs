//! Channel binding: the hash of the server's certificate (`tls-server-end-point`, RFC 5929
//! section 4.1), by which a password exchange proves that nobody stands in between.
//!
//! The hash is the one that the certificate was signed with, except that MD5 and SHA-1
//! become SHA-256. A certificate whose signature has no hash of its own that this side can
//! compute gives no binding; the exchange then goes without, and TLS alone protects it.

use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};

const SHA256: &[&[u8]] = &[
    &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x04], // MD5 with RSA
    &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x05], // SHA-1 with RSA
    &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B], // SHA-256 with RSA
    &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01],             // ECDSA with SHA-1
    &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02],       // ECDSA with SHA-256
];
const SHA384: &[&[u8]] = &[
    &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C], // SHA-384 with RSA
    &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03],       // ECDSA with SHA-384
];

/// The binding data of a server certificate in DER; none when its signature algorithm
/// has no known hash.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let oid = signature_algorithm(certificate)?;
    let suite = if SHA256.contains(&oid) {
        &TLS13_AES_128_GCM_SHA256
    } else if SHA384.contains(&oid) {
        &TLS13_AES_256_GCM_SHA384
    } else {
        return None;
    };
    let hash = suite.tls13()?.common.hash_provider;
    Some(hash.hash(certificate).as_ref().to_vec())
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID …`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (body, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(body, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    Some(element(algorithm, OBJECT_IDENTIFIER)?.0)
}

/// One DER element: its content, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let digits = usize::from(first & 0x7F);
        if digits > 4 || digits > rest.len() {
            return None;
        }
        let (number, tail) = rest.split_at(digits);
        len = number.iter().fold(0, |n, &b| n << 8 | usize::from(b));
        rest = tail;
    }
    (found == tag && len <= rest.len()).then(|| rest.split_at(len))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if content.len() < 0x80 {
            out.push(content.len() as u8);
        } else {
            out.extend([0x82, (content.len() >> 8) as u8, content.len() as u8]);
        }
        out.extend_from_slice(content);
        out
    }

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut body = wrap(0x30, &[7; 300]);
        body.extend(wrap(0x30, &wrap(0x06, oid)));
        body.extend(wrap(0x03, &[1; 64]));
        wrap(0x30, &body)
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        assert_eq!(server_end_point(&certificate(SHA256[1])).unwrap().len(), 32);
        assert_eq!(server_end_point(&certificate(SHA384[1])).unwrap().len(), 48);
        let ed25519 = [0x2B, 0x65, 0x70];
        assert_eq!(server_end_point(&certificate(&ed25519)), None);
    }

    #[test]
    fn a_damaged_certificate_gives_no_binding() {
        let whole = certificate(SHA256[2]);
        for len in 0..300 {
            assert_eq!(server_end_point(&whole[..len]), None);
        }
        assert_eq!(
            server_end_point(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]),
            None
        );
    }
}
