-- One token bucket per name, kept as the moment at which it is full again (GCRA).
-- ARGV: key, milliseconds per token, tokens that fit. Answers 0, or how many ms to wait for one.

local KEY, EVERY, FITS = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local CLOCK = redis.call('TIME')
local NOW = tonumber(CLOCK[1]) * 1000 + math.floor(tonumber(CLOCK[2]) / 1000)

local full = math.max(tonumber(redis.call('GET', KEY) or 0), NOW) + EVERY
local wait = full - NOW - EVERY * FITS
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEY, string.format('%.0f', full), 'PX', math.ceil(full - NOW))
return 0
