-- A row has 1,000 sessions at most: a script that signs in again and again must not make its account one that no sign-out
-- can end in time. The oldest end, and their app reads it.
create function msal_logout.bound_sessions(client_id text, partition_key text) returns void
language plpgsql as $$
#variable_conflict use_column
declare
  max_sessions constant int := 1000;
  surplus int;
  deletions msal_logout.deletion[];
begin
  select count(*) - max_sessions into surplus
  from (
    select from msal_logout.sessions s
    where s.partition_key = bound_sessions.partition_key and s.client_id is not distinct from bound_sessions.client_id
    limit max_sessions + 100
  ) s;
  if surplus <= 0 then
    return;
  end if;
  with oldest as (
    select s.issuer, s.session_key from msal_logout.sessions s
    where s.partition_key = bound_sessions.partition_key and s.client_id is not distinct from bound_sessions.client_id
    order by s.created_at limit surplus -- not by `issued_at`: it would end the login that was just accepted
    for update skip locked
  ), gone as (
    delete from msal_logout.sessions s using oldest o
    where s.partition_key = any (array[bound_sessions.partition_key])
      and s.client_id is not distinct from bound_sessions.client_id
      and s.issuer is not distinct from o.issuer and s.session_key is not distinct from o.session_key
    returning (null, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into deletions from gone g;
  perform msal_logout.publish_later(deletions);
end
$$;
