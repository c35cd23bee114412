-- Least privileges: nothing is for everybody; an app's role has the apps' functions, the service's role the
-- service's functions and every column but the payload.

revoke all on schema msal_logout from public;
revoke all on all tables in schema msal_logout from public;
revoke all on all functions in schema msal_logout from public;

create function msal_logout.register_app(client_id text, db_role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  insert into msal_logout.apps as a (client_id, db_role) values (register_app.client_id, register_app.db_role::name)
  on conflict (client_id) do update set db_role = excluded.db_role;
  execute format('grant usage on schema msal_logout to %I', db_role);
  execute format(
    'grant execute on function msal_logout.login, msal_logout.load, msal_logout.save, msal_logout.add_session,
      msal_logout.forget, msal_logout.session_active, msal_logout.ended_since, msal_logout.store_app to %I',
    db_role);
end
$$;

create function msal_logout.register_service(db_role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema msal_logout to %I', db_role);
  execute format(
    'grant execute on function msal_logout.sign_out, msal_logout.start_purge, msal_logout.purge_step,
      msal_logout.clean_up to %I',
    db_role);
  execute format(
    'grant select (client_id, partition_key, kind, account_issuer, home_account_id, tenant_id, generation, version,
      payload_bytes, encoding, created_at, updated_at, expires_at) on msal_logout.token_cache to %I',
    db_role);
  execute format('grant select on msal_logout.sessions, msal_logout.purges, msal_logout.migrations to %I', db_role);
end
$$;

revoke all on function msal_logout.register_app, msal_logout.register_service from public;
