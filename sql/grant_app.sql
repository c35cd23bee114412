create function msal_logout.grant_app(db_role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema msal_logout to %I', db_role);
  execute format(
    'grant execute on function msal_logout.login, msal_logout.load, msal_logout.load_text, msal_logout.save, msal_logout.add_session,
      msal_logout.forget, msal_logout.session_active, msal_logout.ended_since, msal_logout.store_app to %I',
    db_role);
end
$$;
