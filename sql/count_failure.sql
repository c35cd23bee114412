-- A failure with when it began and how many there were in a row; null after a good round.
create function msal_logout.count_failure(before jsonb, failure jsonb) returns jsonb
language plpgsql stable as $$
begin
  return case when failure = 'null' then null else
    failure || jsonb_build_object(
      'since', coalesce(before -> 'since', to_jsonb(now())), 'at', now(), 'count', coalesce((before ->> 'count')::int, 0) + 1)
    end;
end
$$;
