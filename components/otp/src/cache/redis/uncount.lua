-- Takes a request back from meters that counted it.
-- KEYS the meters  ARGV of each its share, in microseconds
-- Returns the number of meters that still knew of it.
local known = 0
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('SET', key, string.format('%.0f', redis.call('GET', key) - ARGV[i]), 'KEEPTTL')
    known = known + 1
  end
end
return known
