-- Be the observer of a pool, if nobody else is: 1 if the caller is from now on, else 0.
-- KEYS[1]  the observer's name, with an expiry
-- ARGV     name; milliseconds until its word is void
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
