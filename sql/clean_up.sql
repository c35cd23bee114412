-- Removes what has expired, at most `max_rows` of each kind, and passes over what somebody holds; and publishes what logins have ended.
-- Returns how many went, or null while another instance is at it. How long records stay is not for the caller to say: a service that was
-- taken over must not erase what it did.
create function msal_logout.clean_up(max_rows int) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  keep_records constant interval := '400 days';
  keep_revoked_sessions constant interval := '7 days';
  keep_findings constant interval := '30 days';
  pages bigint := pg_relation_size('msal_logout.tombstones') / current_setting('block_size')::int;
  -- All of them within an hour of calls ten seconds apart.
  span bigint := least(greatest(pages / 360, 100), 1000);
  first_page bigint;
  deletions msal_logout.deletion[];
  gone bigint;
  total bigint := 0;
begin
  if not exists (select from msal_logout.clean_up_state) then -- after a restore of the schema alone
    insert into msal_logout.clean_up_state (id) values (1) on conflict (id) do nothing;
  end if;
  select c.next_page into first_page from msal_logout.clean_up_state c for update skip locked;
  if not found then
    return null;
  end if;
  with deleted as (
    delete from msal_logout.token_cache t where (t.partition_key, t.client_id) in (
      select d.partition_key, d.client_id from msal_logout.token_cache d
      where d.expires_at <= now() order by d.expires_at limit max_rows for update skip locked)
    returning t.partition_key, t.client_id
  ), ended as ( -- a session lives with its row: without one no sweep would find it
    delete from msal_logout.sessions s using deleted d
    where s.partition_key = any (array[d.partition_key]) and s.client_id is not distinct from d.client_id
  )
  select count(*) into gone from deleted;
  total := total + gone;
  delete from msal_logout.sessions s where (s.issuer, s.session_key, s.client_id, s.partition_key) in (
    select d.issuer, d.session_key, d.client_id, d.partition_key from msal_logout.sessions d
    where d.expires_at <= now() order by d.expires_at limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.tombstones t where t.ctid = any (array(
    select d.ctid from msal_logout.tombstones d
    where d.ctid >= format('(%s,0)', first_page)::tid and d.ctid < format('(%s,0)', first_page + span)::tid
      and d.expires_at <= now()
    for update skip locked));
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.seen_orders o where o.id in (
    select d.id from msal_logout.seen_orders d
    where d.expires_at <= now() order by d.expires_at limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.revoked_sessions e where (e.client_id, e.last_position) in (
    -- the oldest have the lowest positions; an index on `at` would cost every sign-out
    select d.client_id, d.last_position
    from msal_logout.apps a
    cross join lateral (
      select o.client_id, o.last_position, o.at from msal_logout.revoked_sessions o
      where o.client_id = a.client_id order by o.last_position limit max_rows
    ) d
    where d.at <= now() - keep_revoked_sessions limit max_rows);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.directory_findings f where (f.tenant_id, f.object_id) in (
    select d.tenant_id, d.object_id from msal_logout.directory_findings d
    where d.status = 'done' and d.seen_at <= now() - keep_findings limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.records r where r.id in (
    select d.id from msal_logout.records d
    where d.at <= now() - keep_records and d.status = 'done' order by d.at limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  total := total + gone;
  update msal_logout.clean_up_state
  set next_page = case when first_page + span >= pages then 0 else first_page + span end;
  with due as (
    delete from msal_logout.unpublished_sessions u where (u.client_id, u.id) in (
      select d.client_id, d.id
      from ( -- each has up to a thousand sessions: while many are written, nobody of the app could be signed out
        select d.client_id, d.id, sum(cardinality(d.sessions)) over (rows unbounded preceding) - cardinality(d.sessions) as before
        from (select * from msal_logout.unpublished_sessions limit max_rows for update skip locked) d
      ) d
      where d.before < max_rows)
    returning u.client_id, u.sessions
  )
  select array_agg((null, d.client_id, null, null, false, s)::msal_logout.deletion), (select count(*) from due)
  into deletions, gone
  from due d
  cross join lateral unnest(d.sessions) s
  where not exists ( -- the user may have signed in since
    select from msal_logout.sessions l
    where l.session_key = coalesce('sid=' || s.sid, 'sub=' || s.subject) and l.issuer = s.issuer and l.client_id = d.client_id
    offset 0);
  perform msal_logout.publish_revocations(deletions); -- the last act: it locks the positions of the apps
  return total + gone;
end
$$;
