-- What each order deleted, in all and by app. In an app an account counts if a row or a session of it went.
create function msal_logout.count_deletions(deletions msal_logout.deletion[])
returns table (id uuid, sessions bigint, rows bigint, by_client jsonb)
language sql stable as $$
  select c.id, sum(c.sessions)::bigint, sum(c.rows)::bigint,
    jsonb_object_agg(c.client_id, jsonb_build_object('accounts', c.accounts, 'sessions', c.sessions, 'rows', c.rows))
  from (
    select a.id, a.client_id, count(a.home_account_id) as accounts, sum(a.sessions)::bigint as sessions, sum(a.rows)::bigint as rows
    from (
      select d.id, d.client_id, d.home_account_id, count(*) filter (where d.is_row) as rows, count(*) filter (where not d.is_row) as sessions
      from unnest(deletions) d
      group by d.id, d.client_id, d.account_issuer, d.home_account_id
    ) a
    group by a.id, a.client_id
  ) c
  group by c.id
$$;
