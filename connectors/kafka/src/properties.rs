//! Which librdkafka properties an operator may pass through.
//!
//! Everything that librdkafka knows may be set, but for the few names below: those on which
//! a promise of this crate rests, and those that have a key of their own, so that a value
//! has one place. A wrong name or value is found by librdkafka itself when the client is
//! made.

/// Name (or prefix ending in a dot) and why it is refused.
const REFUSED: &[(&str, &str)] = &[
    (
        "bootstrap.servers",
        "the brokers have their own key: brokers",
    ),
    (
        "metadata.broker.list",
        "the brokers have their own key: brokers",
    ),
    (
        "transactional.id",
        "it has its own key: transactional_id; two sinks that share one fence each other",
    ),
    (
        "enable.idempotence",
        "without it a retry may double or reorder records",
    ),
    (
        "acks",
        "a record counts as delivered only when all in-sync replicas have it",
    ),
    (
        "request.required.acks",
        "a record counts as delivered only when all in-sync replicas have it",
    ),
    (
        "partitioner",
        "records of one user must be where Java clients look for them (murmur2)",
    ),
    (
        "delivery.report.only.error",
        "a block ends when every record of it was reported",
    ),
    (
        "isolation.level",
        "the position is read from committed records only",
    ),
    (
        "group.id",
        "positions are not kept in a consumer group, whose offsets expire",
    ),
    (
        "security.protocol",
        "it follows from tls and sasl, which have their own keys",
    ),
    ("sasl.mechanism", "it has its own key: sasl"),
    ("sasl.mechanisms", "it has its own key: sasl"),
    ("sasl.username", "it has its own key: sasl"),
    ("sasl.password", "it has its own key: sasl, sealed"),
    (
        "enable.ssl.certificate.verification",
        "it follows from the mode of tls",
    ),
    (
        "ssl.endpoint.identification.algorithm",
        "it follows from the mode of tls",
    ),
    ("ssl.ca.location", "it has its own key: tls"),
    ("ssl.certificate.location", "it has its own key: tls"),
    ("ssl.certificate.pem", "it has its own key: tls"),
    ("ssl.key.location", "it has its own key: tls"),
    ("ssl.key.pem", "it has its own key: tls, sealed"),
    ("ssl.key.password", "it has its own key: tls, sealed"),
    (
        "sasl.oauthbearer.client.secret",
        "secrets are never in plain text: hand the token over in a file (sasl)",
    ),
    (
        "plugin.library.paths",
        "it would load foreign code into the daemon",
    ),
];

/// Why a property may not be passed through, or `None` if it may.
pub(crate) fn refusal(name: &str) -> Option<&'static str> {
    REFUSED
        .iter()
        .find(|(refused, _)| *refused == name)
        .map(|(_, reason)| *reason)
}

/// Whether a property says how the brokers are reached, so that it belongs to every client
/// of the sink; all others belong to the producer.
pub(crate) fn is_about_the_connection(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "broker.",
        "client.",
        "connections.",
        "debug",
        "metadata.",
        "reconnect.",
        "resolve.",
        "sasl.",
        "security.",
        "socket.",
        "ssl.",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_promise_rests_on_is_refused_and_the_rest_is_not() {
        assert!(refusal("acks").is_some());
        assert!(refusal("transactional.id").is_some());
        assert!(refusal("linger.ms").is_none());
        assert!(is_about_the_connection("broker.address.family"));
        assert!(!is_about_the_connection("linger.ms"));
    }
}
