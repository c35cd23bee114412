create function msal_logout.grant_service(db_role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema msal_logout to %I', db_role);
  execute format(
    'grant execute on function msal_logout.sign_out, msal_logout.find_large, msal_logout.sign_out_step,
      msal_logout.preview_order, msal_logout.start_sweep, msal_logout.sweep_step, msal_logout.clean_up to %I',
    db_role);
  execute format(
    'grant execute on function msal_logout.claim_directories, msal_logout.release_directories,
      msal_logout.begin_directory_round, msal_logout.end_directory_round, msal_logout.hint_directory,
      msal_logout.keep_subscription,
      msal_logout.list_watched, msal_logout.find_watched, msal_logout.count_unwatched,
      msal_logout.keep_findings, msal_logout.drop_findings, msal_logout.hold_directory, msal_logout.decide_directory to %I',
    db_role);
  execute format(
    'grant execute on function msal_logout.claim_streams, msal_logout.patch_stream, msal_logout.verify_stream,
      msal_logout.release_streams to %I',
    db_role);
  -- Every column but the payload.
  execute format(
    'grant select (client_id, partition_key, kind, account_issuer, home_account_id, tenant_id, generation, version,
      payload_bytes, encoding, created_at, updated_at, expires_at) on msal_logout.token_cache to %I',
    db_role);
  execute format(
    'grant select on msal_logout.sessions, msal_logout.records, msal_logout.migrations, msal_logout.functions,
      msal_logout.directories, msal_logout.directory_findings, msal_logout.streams to %I',
    db_role);
end
$$;
