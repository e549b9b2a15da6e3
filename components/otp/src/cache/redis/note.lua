-- Notes until when a number is at its limit, unless it was erased a moment ago: whoever saw it before that may come last.
-- KEYS[1] the number's key  ARGV[1] until when, in milliseconds  ARGV[2] for how long that is true, in milliseconds
-- Returns 1 if it was noted.
if redis.call('GET', KEYS[1]) == '' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
