-- `after` null: the last one alone, whose position is where a new listener begins.
create function msal_logout.ended_since(client_id text, after bigint)
returns table ("position" bigint, issuer text, sid text, subject text, home_account_id text, at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  seen bigint := coalesce(ended_since.after, (
    select max(l.last_position) - 1 from msal_logout.revoked_sessions l where l.client_id = ended_since.client_id));
begin
  perform msal_logout.authorize(ended_since.client_id);
  return query
    select e.last_position - cardinality(e.sessions) + s.n, s.issuer, s.sid, s.subject, s.home_account_id, e.at
    from msal_logout.revoked_sessions e
    cross join lateral unnest(e.sessions) with ordinality s (issuer, sid, subject, home_account_id, n)
    where e.client_id = ended_since.client_id and e.last_position > seen
      and e.last_position - cardinality(e.sessions) + s.n > seen
    order by 1;
end
$$;
