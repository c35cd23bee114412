-- The only way in which a user's row comes to be.
create function msal_logout.login(
  client_id text, partition_key text, home_account_id text, issuer text, sid text, subject text, issued_at bigint,
  payload bytea, encoding text, ttl interval, kind text default 'user', oid text default null, tid text default null,
  out accepted boolean, out generation bigint, out version bigint
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  known_sid text := nullif(login.sid, '');
  known_oid text := nullif(lower(login.oid), '');
  known_tid text := nullif(lower(login.tid), '');
  account_issuer text;
  asked_at timestamptz := now();
  new_generation bigint;
  deletions msal_logout.deletion[];
begin
  lock table msal_logout.issuer_groups in access share mode; -- until it is stored, the account is whose it is now
  account_issuer := msal_logout.account_issuer(login.issuer, login.subject, login.home_account_id);
  perform msal_logout.authorize(login.client_id);
  perform msal_logout.check_payload(login.partition_key, login.payload, login.encoding, login.ttl);
  perform msal_logout.check_session(
    login.client_id, login.partition_key, login.home_account_id,
    login.issuer, known_sid, login.subject, login.issued_at, known_oid, known_tid);
  if login.kind is null or login.kind not in ('user', 'obo') then
    raise exception '"kind" must be user or obo' using errcode = 'invalid_parameter_value';
  end if;

  accepted := msal_logout.admit(
    login.client_id, account_issuer, login.home_account_id,
    login.issuer, known_sid, login.subject, login.issued_at, known_oid, known_tid);
  if not accepted then
    return;
  end if;

  deletions := msal_logout.end_due_row(login.client_id, login.partition_key);
  new_generation := msal_logout.new_generation();

  -- A live row keeps its generation: the account's other sessions go on. An expired one is as good as none. One of which a sign-out in
  -- steps takes some sessions gets a new one, as if it were gone: a save that is under way must not come into this.
  insert into msal_logout.token_cache as t (
    client_id, partition_key, kind, account_issuer, home_account_id, generation, payload, encoding, expires_at)
  values (
    login.client_id, login.partition_key, login.kind, account_issuer, login.home_account_id, new_generation,
    login.payload, login.encoding, asked_at + login.ttl)
  on conflict (partition_key, client_id) do update set
    kind = excluded.kind,
    account_issuer = excluded.account_issuer,
    home_account_id = excluded.home_account_id,
    generation = case
      when t.expires_at > asked_at and not msal_logout.is_in_steps(t.account_issuer, t.home_account_id, t.generation) then t.generation
      else greatest(t.generation + 1, excluded.generation) end,
    version = t.version + 1,
    payload = excluded.payload,
    encoding = excluded.encoding,
    created_at = case when t.expires_at > asked_at then t.created_at else excluded.created_at end,
    updated_at = excluded.updated_at,
    expires_at = excluded.expires_at
  where t.expires_at <= asked_at
    or (t.kind, t.account_issuer, t.home_account_id)
      = (excluded.kind, excluded.account_issuer, excluded.home_account_id)
  returning t.generation, t.version into generation, version;
  if not found then
    perform msal_logout.reject_partition(login.client_id, login.partition_key, login.home_account_id, login.issuer);
  end if;

  if version > 1 then -- the row's other sessions
    perform msal_logout.check_subject(login.client_id, login.partition_key, login.issuer, login.subject);
    perform msal_logout.renew_sessions(
      login.client_id, login.partition_key, account_issuer, login.home_account_id, login.ttl);
  end if;
  perform msal_logout.store_session(
    login.client_id, login.partition_key, account_issuer, login.home_account_id,
    login.issuer, known_sid, login.subject, login.issued_at, known_oid, known_tid,
    new_generation, asked_at + login.ttl);
  perform msal_logout.publish_later(deletions);
end
$$;
