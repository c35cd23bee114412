-- Ends the matched sessions alone, and deletes those of their rows that no live session uses any more. The rows are locked
-- first: a sweep locks a row before its sessions, too. `in_steps`: of a sign-out in steps; a login may have renewed a session since it was
-- matched, which stays.
create function msal_logout.delete_matches(matches msal_logout.match[], in_steps boolean default false) returns msal_logout.deletion[]
language plpgsql as $$
declare
  gone_sessions msal_logout.deletion[];
  gone_rows msal_logout.deletion[];
begin
  perform from msal_logout.token_cache t
  join unnest(matches) m
    on t.partition_key = any (array[m.partition_key]) and t.client_id is not distinct from m.client_id
  for update of t;
  with gone as (
    delete from msal_logout.sessions s
    using (
      select distinct on (m.issuer, m.session_key, m.client_id, m.partition_key) m.*
      from unnest(matches) m
      order by m.issuer, m.session_key, m.client_id, m.partition_key, m.id
    ) m
    -- Keeps the primary key, with all of its columns: a row may have many sessions, and a sid many rows.
    where s.session_key = any (array[m.session_key])
      and (s.issuer, s.client_id, s.partition_key) >= (m.issuer, m.client_id, m.partition_key)
      and (s.issuer, s.client_id, s.partition_key) <= (m.issuer, m.client_id, m.partition_key)
      and (not in_steps or s.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = s.home_account_id and a.account_issuer = s.account_issuer and a.id is not distinct from m.id)) -- keeps the primary key of the notes
    returning (m.id, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into gone_sessions from gone g;
  with gone as (
    delete from msal_logout.token_cache t
    using (
      select distinct on (m.client_id, m.partition_key) m.*
      from unnest(matches) m
      order by m.client_id, m.partition_key, m.id
    ) m
    where t.partition_key = any (array[m.partition_key]) and t.client_id is not distinct from m.client_id -- keeps the primary key
      and t.account_issuer is not distinct from m.account_issuer and t.home_account_id is not distinct from m.home_account_id
      and not exists (
        select from msal_logout.sessions s
        where s.partition_key = t.partition_key and s.client_id is not distinct from t.client_id -- keeps sessions_row
          and s.expires_at > now()
        offset 0)
    returning (m.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
  )
  select array_agg(g.d) into gone_rows from gone g;
  return gone_sessions || gone_rows;
end
$$;
