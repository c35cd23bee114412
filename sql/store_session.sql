create function msal_logout.store_session(
  client_id text, partition_key text, account_issuer text, home_account_id text,
  issuer text, sid text, subject text, issued_at bigint, oid text, tid text, generation bigint, expires_at timestamptz
) returns void
language plpgsql as $$
#variable_conflict use_column
begin
  insert into msal_logout.sessions as s (
    issuer, session_key, client_id, partition_key, sid, subject, account_issuer, home_account_id, oid, tid,
    issued_at, generation, expires_at)
  values (
    store_session.issuer,
    coalesce('sid=' || store_session.sid, 'sub=' || store_session.subject),
    store_session.client_id, store_session.partition_key, store_session.sid, store_session.subject,
    store_session.account_issuer, store_session.home_account_id, store_session.oid, store_session.tid,
    store_session.issued_at, store_session.generation, store_session.expires_at)
  on conflict (session_key, issuer, client_id, partition_key) do update set
    subject = excluded.subject,
    account_issuer = excluded.account_issuer,
    home_account_id = excluded.home_account_id,
    oid = coalesce(excluded.oid, s.oid),
    tid = coalesce(excluded.tid, s.tid),
    issued_at = greatest(s.issued_at, excluded.issued_at),
    generation = excluded.generation,
    expires_at = greatest(s.expires_at, excluded.expires_at);
  perform msal_logout.bound_sessions(store_session.client_id, store_session.partition_key);
end
$$;
