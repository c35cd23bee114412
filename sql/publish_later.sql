-- What a login has ended: `clean_up` publishes it, and this locks nothing. The login's transaction ends when its app likes; the positions of
-- the app, that long locked, would keep all of its users from being signed out.
create function msal_logout.publish_later(deletions msal_logout.deletion[]) returns void
language plpgsql as $$
begin
  insert into msal_logout.unpublished_sessions (client_id, sessions)
  select d.client_id, array_agg(d.session) from unnest(deletions) d where not d.is_row group by d.client_id;
end
$$;
