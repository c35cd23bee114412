-- The database and its two roles: one owns the schema and migrates it, the other serves and cannot read a token. As a superuser:
-- psql --set ON_ERROR_STOP=1 --set owner_password="$(cat owner_password)" --set service_password="$(cat service_password)" --file create-roles.sql
create role msal_logout_owner login password :'owner_password';
create role msal_logout_service login password :'service_password';
create database msal_logout owner msal_logout_owner encoding 'UTF8' template template0;
revoke all on database msal_logout from public;
grant connect on database msal_logout to msal_logout_service;
