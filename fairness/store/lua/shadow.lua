-- Shadow mode: first come, first served, and a note of whom VTC would have chosen at each grant
-- (fairness/store/shadow.py says what the numbers mean).
--
-- grants, went_ahead, passed_over; the service of the latter two. redis_store.py reads it, too.
local SHADOW = '<I4I4I4dd'

local function decode_shadow(raw)
  if not raw then return {grants = 0, went_ahead = 0, passed_over = 0, service_ahead = 0, service_passed = 0} end
  local grants, ahead, passed, service_ahead, service_passed = struct.unpack(SHADOW, raw)
  return {grants = grants, went_ahead = ahead, passed_over = passed, service_ahead = service_ahead, service_passed = service_passed}
end

local function encode_shadow(s)
  return struct.pack(SHADOW, s.grants, s.went_ahead, s.passed_over, s.service_ahead, s.service_passed)
end

local shadows = records(key_of('shadow'), decode_shadow, encode_shadow)

-- A grant. turn: the client whose it was under VTC.
local function note_turn(served, turn, service)
  local shadow = shadows:get(served)
  shadow.grants = shadow.grants + 1
  shadow.changed = true
  if turn == served then return end
  shadow.went_ahead, shadow.service_ahead = shadow.went_ahead + 1, shadow.service_ahead + service
  local other = shadows:get(turn)
  other.passed_over, other.service_passed = other.passed_over + 1, other.service_passed + service
  other.changed = true
end

-- The notes begin anew.
local function begin_shadow()
  call('DEL', shadows.key)
  shadows:forget()
  pool.shadow_since = NOW
end
