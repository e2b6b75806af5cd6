-- Tell what was seen, if the caller is still the observer: 1, else 0.
-- KEYS     observer, observation, history, coarse history
-- ARGV     name; milliseconds until its word is void; the observation; milliseconds until that is;
--          its point; how many points are kept; the coarse point, or ''; how many are kept of those
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[6], '*', 'point', ARGV[5])
if ARGV[7] ~= '' then redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[8], '*', 'point', ARGV[7]) end
return 1
