-- Be the observer no longer: 1 if the caller was, else 0.
-- KEYS[1]  the observer's name
-- ARGV[1]  name
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
