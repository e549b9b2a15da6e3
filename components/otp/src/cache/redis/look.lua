-- The account as it was last put, and counts a request on all meters, or on none if one of them is full (the generic cell
-- rate algorithm: a meter is the moment, in microseconds, at which it would be empty again).
-- KEYS the account, if it is wanted, and the meters  ARGV[1] 1 if it is wanted  ARGV[2] … of each meter its share and its
-- room, in microseconds
-- Returns revision and account, each an empty string if there is none, and 0, or the place of the full meter and the
-- microseconds until it lets a request in.
local wanted = tonumber(ARGV[1])
local found = {'', ''}
if wanted == 1 then
  local kept = redis.pcall('HMGET', KEYS[1], 'revision', 'account')
  found = {kept[1] or '', kept[2] or ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local empty_at = {}
for i = 1, #KEYS - wanted do
  empty_at[i] = math.max(tonumber(redis.call('GET', KEYS[i + wanted]) or 0), now)
  local wait = empty_at[i] - tonumber(ARGV[2 * i + 1]) - now
  if wait > 0 then
    return {found[1], found[2], i, wait}
  end
end
for i = 1, #KEYS - wanted do
  local later = empty_at[i] + ARGV[2 * i]
  redis.call('SET', KEYS[i + wanted], string.format('%.0f', later), 'PX', math.ceil((later - now) / 1000))
end
return {found[1], found[2], 0, 0}
