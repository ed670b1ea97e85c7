-- Run once, by the first start of the container: a table of people, and what
-- `rollcall check --script` would ask an operator for.
CREATE TABLE hr.employees (
  id          bigint AUTO_INCREMENT PRIMARY KEY,
  first_name  varchar(100),
  last_name   varchar(100),
  emp_email   varchar(200),
  job         varchar(100),
  department  varchar(100),
  status      varchar(20) NOT NULL DEFAULT 'active',
  hired_on    date
);

INSERT INTO hr.employees (first_name, last_name, emp_email, job, department, status, hired_on)
WITH RECURSIVE numbers (n) AS (
  SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000
)
SELECT CONCAT('First', n),
       CONCAT('Last', n),
       CONCAT('person', n, '@example.org'),
       ELT(1 + n % 4, 'Engineer', 'Analyst', 'Clerk'),
       ELT(1 + n % 3, 'Engineering', 'Finance', 'Operations'),
       IF(n % 20 = 0, 'contractor', 'active'),
       DATE '2015-01-01' + INTERVAL n % 3000 DAY
FROM numbers;

CREATE USER rollcall@'%' IDENTIFIED BY 'rollcall-demo';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO rollcall@'%';
GRANT SELECT ON hr.employees TO rollcall@'%';
