-- Be the observer of a pool, if nobody else is: 1 if the caller is from now on; else 0, and what the
-- observer saw last, if that is not too old.
-- KEYS     the observer's name, with an expiry; the observation
-- ARGV     name; milliseconds until its word is void
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0, redis.call('GET', KEYS[2])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
