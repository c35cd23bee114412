-- Gives a role what the service needs: it can delete rows, and cannot read a payload.
create function msal_logout.register_service(db_role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  if exists (select from msal_logout.apps a where a.db_role = register_service.db_role::name) then
    raise exception 'role "%" is an app''s: give the service a role of its own', register_service.db_role
      using errcode = 'invalid_parameter_value';
  end if;
  insert into msal_logout.service_roles (db_role) values (register_service.db_role::name) on conflict (db_role) do nothing;
  perform msal_logout.grant_service(register_service.db_role);
end
$$;
