-- Run once, by the first start of the container: a table of people, and what
-- `rollcall check --script` would ask an operator for.
CREATE TABLE public.employees (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  first_name  text,
  last_name   text,
  emp_email   text,
  job         text,
  department  text,
  status      text NOT NULL DEFAULT 'active',
  hired_on    date
);

INSERT INTO public.employees (first_name, last_name, emp_email, job, department, status, hired_on)
SELECT 'First' || n,
       'Last' || n,
       'person' || n || '@example.org',
       (ARRAY['Engineer', 'Analyst', 'Clerk', NULL])[1 + n % 4],
       (ARRAY['Engineering', 'Finance', 'Operations'])[1 + n % 3],
       CASE WHEN n % 20 = 0 THEN 'contractor' ELSE 'active' END,
       DATE '2015-01-01' + n % 3000
FROM generate_series(1, 1000) AS n;

CREATE ROLE rollcall LOGIN REPLICATION PASSWORD 'rollcall-demo';
GRANT CONNECT ON DATABASE hr TO rollcall;
GRANT USAGE ON SCHEMA public TO rollcall;
GRANT SELECT ON public.employees TO rollcall;

CREATE PUBLICATION rollcall FOR TABLE public.employees
  WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
