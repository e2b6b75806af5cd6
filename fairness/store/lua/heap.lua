-- A heap of (score, member), the lowest on top.
--
-- Rule (that of fairness/lowest_first.py): every member has an entry that is not above its true
-- score. So a rise needs no work; a fall or a new member adds an entry. If the top entry tells the
-- truth, its member is the lowest; else it is put right, and we look again. O(log entries).

-- The order of a sorted set: by score, ties by bytes. The server may run in a locale in which Lua
-- compares text in another order; in those, lower case comes first.
local function bytes_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y end
  end
  return #a < #b
end
local BY_BYTES = 'B' < 'a'

local function before(score, member, other_score, other)
  if score ~= other_score then return score < other_score end
  if BY_BYTES then return member < other end
  return bytes_before(member, other)
end

-- Add an entry. The heap is two arrays of its owner: scores, members.
local function push(self, score, member)
  local scores, members = self.scores, self.members
  local i = #members + 1
  while i > 1 do
    local parent = math.floor(i / 2)
    if not before(score, member, scores[parent], members[parent]) then break end
    scores[i], members[i] = scores[parent], members[parent]
    i = parent
  end
  scores[i], members[i] = score, member
end

-- Put an entry in the place of the top one, at which it is not lower.
local function replace_top(self, score, member)
  local scores, members = self.scores, self.members
  local i, n = 1, #members
  while 2 * i <= n do
    local child = 2 * i
    if child < n and before(scores[child + 1], members[child + 1], scores[child], members[child]) then child = child + 1 end
    if not before(scores[child], members[child], score, member) then break end
    scores[i], members[i] = scores[child], members[child]
    i = child
  end
  scores[i], members[i] = score, member
end

local function drop_top(self)
  local n = #self.members
  local score, member = self.scores[n], self.members[n]
  self.scores[n], self.members[n] = nil, nil
  if n > 1 then replace_top(self, score, member) end
end
