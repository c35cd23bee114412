-- What a step of a sweep deleted, by app. In an app an account counts if a row or a session of it went.
create function msal_logout.count_deletions(deletions msal_logout.deletion[])
returns table (client_id text, accounts int, sessions int, rows int)
language plpgsql stable as $$
#variable_conflict use_column
begin
  return query
  select a.client_id, count(a.home_account_id)::int, sum(a.sessions)::int, sum(a.rows)::int
  from (
    select d.client_id, d.home_account_id, count(*) filter (where d.is_row) as rows, count(*) filter (where not d.is_row) as sessions
    from unnest(deletions) d
    group by d.client_id, d.account_issuer, d.home_account_id
  ) a
  group by a.client_id;
end
$$;
