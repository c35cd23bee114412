-- A further ID token of the same row, as a guest's of another tenant.
create function msal_logout.add_session(
  client_id text, partition_key text, issuer text, sid text, subject text, issued_at bigint,
  oid text default null, tid text default null
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  known_sid text := nullif(add_session.sid, '');
  known_oid text := nullif(lower(add_session.oid), '');
  known_tid text := nullif(lower(add_session.tid), '');
  owner_issuer text;
  owner_id text;
  row_expires_at timestamptz;
  row_generation bigint;
begin
  perform msal_logout.authorize(add_session.client_id);
  perform msal_logout.check_id('partition_key', add_session.partition_key);
  select c.account_issuer, c.home_account_id into owner_issuer, owner_id
  from msal_logout.token_cache c
  where c.partition_key = add_session.partition_key and c.client_id is not distinct from add_session.client_id
    and c.kind <> 'app' and c.expires_at > now();
  if not found then
    return false;
  end if;
  perform msal_logout.check_session(
    add_session.client_id, add_session.partition_key, owner_id,
    add_session.issuer, known_sid, add_session.subject, add_session.issued_at, known_oid, known_tid);
  -- A bare subject's account is its issuer's. Another issuer's session of an account from client info is the app's word: it asked that
  -- issuer with this account's tokens.
  if owner_issuer like '%/*' and add_session.subject = owner_id
    or owner_issuer not like '%/*' and owner_issuer <> add_session.issuer then
    perform msal_logout.reject_partition(add_session.client_id, add_session.partition_key, owner_id, add_session.issuer);
  end if;
  if not msal_logout.admit(
    add_session.client_id, owner_issuer, owner_id,
    add_session.issuer, known_sid, add_session.subject, add_session.issued_at, known_oid, known_tid) then
    return false;
  end if;

  -- A sweep has the row's lock alone. What it, or a sign-out in steps, has yet to reach is as good as gone: this session is the row's, and
  -- no new login.
  select c.expires_at, greatest(c.generation, (
      select max(s.generation) from msal_logout.sessions s
      where s.partition_key = c.partition_key and s.client_id is not distinct from c.client_id)) -- keeps sessions_row
  into row_expires_at, row_generation
  from msal_logout.token_cache c
  where c.partition_key = add_session.partition_key and c.client_id is not distinct from add_session.client_id
    and c.account_issuer = owner_issuer and c.home_account_id = owner_id and c.expires_at > now()
    and not msal_logout.is_due(c.client_id, c.tenant_id, c.generation)
    and not msal_logout.is_in_steps(c.account_issuer, c.home_account_id, c.generation)
  for share;
  if not found then
    return false;
  end if;
  perform msal_logout.check_subject(
    add_session.client_id, add_session.partition_key, add_session.issuer, add_session.subject);
  perform msal_logout.store_session(
    add_session.client_id, add_session.partition_key, owner_issuer, owner_id,
    add_session.issuer, known_sid, add_session.subject, add_session.issued_at, known_oid, known_tid,
    row_generation, row_expires_at);
  return true;
end
$$;
