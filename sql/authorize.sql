create function msal_logout.authorize(client_id text) returns void
language plpgsql stable as $$
begin
  if client_id is null then
    raise exception '"client_id" must be given' using errcode = 'invalid_parameter_value';
  end if;
  if not msal_logout.may_use(
    (select a.db_role from msal_logout.apps a where a.client_id = authorize.client_id)
  ) then
    raise exception 'client id "%" is not for role "%"', client_id, msal_logout.caller()
      using errcode = 'insufficient_privilege',
        hint = format('as the owner of the schema: select msal_logout.register_app(%L, %L)', client_id, msal_logout.caller());
  end if;
  if client_id = '' then -- the owner's own
    raise exception '"client_id" must not be empty' using errcode = 'invalid_parameter_value';
  end if;
end
$$;
