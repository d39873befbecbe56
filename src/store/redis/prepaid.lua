-- The same decisions as `Prepaid::exchange`, line by line. A test compares them on random histories.
-- Times are in microseconds. All products stay below 2^53, so that doubles hold them exactly.
local count, period, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local capacity, life = tonumber(ARGV[4]), tonumber(ARGV[5])
local want, least = tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function span(units)
  return math.ceil(units * period / count)
end
local tat = tonumber(redis.call('HGET', KEYS[1], 't') or '0')
if ARGV[8] == '1' then
  tat = now
end
local owed = 0
if ARGV[9] ~= '' then
  local process = 'd' .. ARGV[9]
  local last = redis.call('HGET', KEYS[1], process)
  if not last and redis.call('HLEN', KEYS[1]) > 32 then
    redis.call('DEL', KEYS[1])
  end
  if not last or tonumber(ARGV[10]) > tonumber(last) then
    redis.call('HSET', KEYS[1], process, ARGV[10])
    owed = math.min(tonumber(ARGV[11]), burst)
  end
end
local ahead = math.min(math.max(tat - now, 0) + span(owed), 31536000000000)
local function room_at(far)
  return math.floor(math.max(capacity - far, 0) * count / period)
end
local room = room_at(ahead)
local half = math.ceil(room / 2)
least = math.min(least, want, burst)
local units = want
if want > half then
  units = math.min(want, math.max(half, math.min(least, room)))
end
local good_for, wait = life, 0
local start = math.max(ahead + span(math.max(least, 1)) - capacity, 0)
if least > room and (least > 1 or span(1) > capacity) and start <= 2000000 then
  ahead = ahead + span(least) + math.max(span(least) - capacity, 0)
  units, good_for, wait = least, start + life, start
else
  ahead = ahead + span(units)
  if units == 0 then
    wait = start
  end
end
redis.call('HSET', KEYS[1], 't', string.format('%.0f', now + ahead))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(ahead / 1000) + 60000))
return {units, good_for, wait, room_at(ahead), now}
