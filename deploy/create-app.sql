-- A database role for one app, which reaches the rows of its own client id alone. As a superuser:
-- psql --set ON_ERROR_STOP=1 --set client_id=client-a --set role=app_a --set password="$(cat app_a_password)" --dbname msal_logout --file create-app.sql
create role :"role" login password :'password';
grant connect on database msal_logout to :"role";
select msal_logout.register_app(:'client_id', :'role');
