-- The role that serves: the migration grants it what it needs, and nothing that changes the audit trail.
\set password `cat /run/secrets/service_password`
CREATE ROLE medisecure_app LOGIN PASSWORD :'password';
