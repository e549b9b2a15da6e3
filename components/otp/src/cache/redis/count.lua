-- Counts a request on all meters, or on none if one of them is full (the generic cell rate algorithm: a meter is
-- the moment, in microseconds, at which it would be empty again).
-- KEYS the meters  ARGV of each its share and its room, in microseconds
-- Returns {0}, or the place of the full one and the microseconds until it lets a request in.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local empty_at = {}
for i, key in ipairs(KEYS) do
  empty_at[i] = math.max(tonumber(redis.call('GET', key) or 0), now)
  local wait = empty_at[i] - tonumber(ARGV[2 * i]) - now
  if wait > 0 then
    return {i, wait}
  end
end
for i, key in ipairs(KEYS) do
  local later = empty_at[i] + ARGV[2 * i - 1]
  redis.call('SET', key, string.format('%.0f', later), 'PX', math.ceil((later - now) / 1000))
end
return {0}
