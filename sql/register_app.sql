-- Gives a role the apps' functions for one client id. From then on that client id is closed to every other role.
create function msal_logout.register_app(client_id text, db_role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  perform msal_logout.check_id('client_id', register_app.client_id);
  if exists (select from msal_logout.service_roles r where r.db_role = register_app.db_role::name) then
    raise exception 'role "%" is the service''s: give the app a role of its own', register_app.db_role
      using errcode = 'invalid_parameter_value';
  end if;
  insert into msal_logout.apps as a (client_id, db_role) values (register_app.client_id, register_app.db_role::name)
  on conflict (client_id) do update set db_role = excluded.db_role;
  perform msal_logout.grant_app(register_app.db_role);
  -- A transaction that is left open holds the locks of its users: their sign-outs would wait as long.
  begin
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', register_app.db_role, '10s');
  exception
    when insufficient_privilege then
      raise warning 'the limit on idle transactions of role "%" was not set', register_app.db_role
        using hint = format('as a role that may: alter role %I set idle_in_transaction_session_timeout = %L',
          register_app.db_role, '10s');
  end;
end
$$;
