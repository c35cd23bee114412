-- Writes down by what subscription a directory says that it has something new; null: by none. False if another instance holds the
-- lease by now: nothing is written then.
create function msal_logout.keep_subscription(tenant_id text, holder uuid, subscription jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update msal_logout.directories d set subscription = keep_subscription.subscription
  where d.tenant_id = keep_subscription.tenant_id and d.holder = keep_subscription.holder and d.held_until > now();
  return found;
end
$$;
