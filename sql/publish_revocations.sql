-- Numbers the revoked sessions for `ended_since`. The last act of its transaction: from the first position on until the commit
-- nobody else is given one, so that a reader who has seen a position has seen all before it. The service notifies after the
-- commit: a full queue of notifications must fail no sign-out.
create function msal_logout.publish_revocations(deletions msal_logout.deletion[]) returns void
language plpgsql as $$
begin
  if deletions is null then
    return;
  end if;
  with revoked as (
    select d.client_id, array_agg(d.session) as sessions from unnest(deletions) d where not d.is_row group by d.client_id
  ), raised as (
    insert into msal_logout.apps as a (client_id, last_position)
    select r.client_id, cardinality(r.sessions) from revoked r order by r.client_id collate "C"
    on conflict (client_id) do update set last_position = a.last_position + excluded.last_position
    returning a.client_id, a.last_position
  )
  insert into msal_logout.revoked_sessions (client_id, last_position, sessions)
  select a.client_id, a.last_position, r.sessions from raised a join revoked r on r.client_id = a.client_id;
end
$$;
