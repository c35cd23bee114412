-- The counts by app of a sweep, step by step.
create function msal_logout.add_counts(a jsonb, b jsonb) returns jsonb
language sql immutable as $$
  select coalesce(jsonb_object_agg(c.client_id, c.counts), '{}') from (
    select e.client_id, jsonb_build_object(
      'accounts', sum((e.counts ->> 'accounts')::bigint),
      'sessions', sum((e.counts ->> 'sessions')::bigint),
      'rows', sum((e.counts ->> 'rows')::bigint)) as counts
    from (select * from jsonb_each(a) union all select * from jsonb_each(b)) e (client_id, counts)
    group by e.client_id
  ) c
$$;
