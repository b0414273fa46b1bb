-- The frame around the script of an HTTPExtension: it is what Envoy runs, with `source` and `name` set before it. The
-- script sees nothing of Envoy or of the Lua libraries but what is handed to it here. What fails answers 500.

local type, tostring, tonumber, error, pcall, next, pairs = type, tostring, tonumber, error, pcall, next, pairs
local find, sub, lower, gsub, rep = string.find, string.sub, string.lower, string.gsub, string.rep
local sethook, collect, load = debug.sethook, collectgarbage, load
local getmetatable, setmetatable = getmetatable, setmetatable

-- Compiled code asks no hook, and the hook is what ends a script.
jit.off()

local step, steps, room = 1000, 1000, 32 * 1024 -- instructions, so many times, and KiB
local longest, changes = 1024 * 1024, 256
local left, stopped = 0, nil

local function stop(why)
  stopped = why
  error(why, 0)
end

local function check()
  if stopped then error(stopped, 0) end
  left = left - 1
  if left <= 0 then stop("it takes too long") end
  if collect("count") > room then
    collect()
    if collect("count") > room then stop("it keeps too much in memory") end
  end
end

local function go_on() sethook(check, "", step) end

-- reserve fails where the stack has no room for what puts the hook back.
local function reserve(...) go_on() end

local function begin()
  left, stopped = steps, nil
  go_on()
end

-- ended calls a function of the script, and takes the hook away. The hook may end a script that has ended just now.
local function ended(f, ...)
  local ok, err = pcall(f, ...)
  sethook()
  return ok, err
end

-- run calls a function of the script, and says why it failed; nil if it didn't.
local function run(f, ...)
  begin()
  local caught, ok, err = pcall(ended, f, ...)
  sethook()
  if stopped then return stopped end
  if not caught then ok, err = false, ok end
  if ok then return nil end
  if type(err) == "string" then return err end
  return "it raised a value that is no text"
end

local function text(s, what, most)
  if type(s) == "number" then s = tostring(s) end
  if type(s) ~= "string" then error(what .. " must be a text", 3) end
  if #s > most then error(what .. " is too long", 3) end
  return s
end

-- Headers that say who calls, where a message ends, or what the proxy is to do.
local kept = {
  ["host"] = true, ["x-forwarded-client-cert"] = true, ["connection"] = true, ["content-length"] = true,
  ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["upgrade"] = true,
}

local function changeable(name)
  name = text(name, "the name of a header", 256)
  local as = gsub(lower(name), "_", "-")
  if not find(name, "^[%w!#$%%&'*+.^_`|~-]+$") or kept[as] or find(as, "^x%-envoy%-") or find(as, "^x%-fairway%-") then
    error("header " .. name .. " is not for extensions to change", 3)
  end
  return name
end

local function value(v)
  v = text(v, "the value of a header", 65536)
  if find(v, "[%z\1-\8\10-\31\127]") then error("the value of a header has a character that it can't have", 3) end
  return v
end

local function status(v)
  local n = tonumber(v)
  if not n or n < 200 or n > 599 or n % 1 ~= 0 then error(":status must be a number from 200 to 599", 3) end
  return tostring(n)
end

-- inner are Envoy's handles behind what the script holds.
local inner = setmetatable({}, { __mode = "k" })

-- headers are asked for anew each time: Envoy takes back what it gave before a script waited.
local function headers(handle, answer)
  local made = 0
  local function count()
    made = made + 1
    if made > changes then error("too many changes of headers", 3) end
  end
  local out = {
    get = function(_, k) return handle:headers():get(text(k, "the name of a header", 256)) end,
    getAtIndex = function(_, k, i)
      return handle:headers():getAtIndex(text(k, "the name of a header", 256), tonumber(i) or 0)
    end,
    getNumValues = function(_, k) return handle:headers():getNumValues(text(k, "the name of a header", 256)) end,
    add = function(_, k, v) count() handle:headers():add(changeable(k), value(v)) end,
    remove = function(_, k) count() handle:headers():remove(changeable(k)) end,
    replace = function(_, k, v)
      count()
      if answer and k == ":status" then
        handle:headers():replace(k, status(v))
      else
        handle:headers():replace(changeable(k), value(v))
      end
    end,
  }
  inner[out] = handle
  return out
end

local function body(of)
  return {
    length = function() return of:length() end,
    getBytes = function(_, from, count) return of:getBytes(tonumber(from) or 0, tonumber(count) or 0) end,
    setBytes = function(_, bytes) return of:setBytes(text(bytes, "a body", longest)) end,
  }
end

local function caller(handle)
  local ssl = handle:streamInfo():downstreamSslConnection()
  local names = ssl and ssl:uriSanPeerCertificate()
  return names and names[1]
end

-- of is what the script has in place of Envoy's handle.
local function of(handle, answer)
  local held, its, logged = nil, nil, 0
  local function log(method)
    return function(_, line)
      logged = logged + 1
      if logged > 16 then return end
      line = gsub(sub(text(line, "a line of the log", longest), 1, 1024), "[%c]", "?")
      handle[method](handle, "HTTPExtension " .. name .. ": " .. line)
    end
  end
  local out = {
    headers = function()
      its = its or headers(handle, answer)
      return its
    end,
    body = function()
      if held == nil then
        if handle:headers():get("upgrade") then error("an upgrade has no body", 2) end
        reserve(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
        sethook() -- it waits, and others run meanwhile
        local ok, whole = pcall(handle.body, handle, true)
        if not ok then
          go_on()
          error(whole, 0)
        end
        begin()
        held = whole and body(whole) or false
      end
      return held or nil
    end,
    caller = function() return caller(handle) end,
    base64Escape = function(_, s) return handle:base64Escape(text(s, "what is escaped", longest)) end,
    logTrace = log("logTrace"), logDebug = log("logDebug"), logInfo = log("logInfo"), logWarn = log("logWarn"),
    logErr = log("logErr"), logCritical = log("logCritical"),
  }
  if not answer then
    out.respond = function(_, h, b)
      if type(h) ~= "table" then error("respond needs a table with :status", 2) end
      local with = { [":status"] = status(h[":status"]) }
      for k, v in next, h do
        if k ~= ":status" then with[changeable(k)] = value(v) end
      end
      if b ~= nil then b = text(b, "a body", longest) end
      reserve(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
      sethook() -- others run meanwhile
      local _, why = pcall(handle.respond, handle, with, b) -- never returns, unless this handle can't answer any more
      go_on()
      error(why, 0)
    end
  end
  return out
end

-- What the script has of the libraries.
local function copy(library)
  local out = {}
  for k, v in next, library do out[k] = v end
  return out
end

string.dump = nil
string.rep = function(s, n, between)
  s, between = text(s, "what is repeated", longest), text(between or "", "what is between", longest)
  n = tonumber(n) or 0
  if n > 0 and (#s + #between) * n > longest then error("a text would be too long", 2) end
  return rep(s, n, between)
end

-- passed is after what a script catches, and counts it: where the stack ends, the hook fails instead of counting.
local function passed(ok, ...)
  if stopped then error(stopped, 0) end
  if not ok then
    left = left - 1
    if left <= 0 then stop("it takes too long") end
  end
  return ok, ...
end

local env = {
  _VERSION = _VERSION, assert = assert, error = error, ipairs = ipairs, next = next, rawequal = rawequal,
  rawget = rawget, rawset = rawset, select = select, setmetatable = setmetatable, tonumber = tonumber,
  tostring = tostring, type = type, unpack = unpack,
  bit = copy(bit), math = copy(math), string = copy(string), table = copy(table),
  os = { clock = os.clock, time = os.time },
  getmetatable = function(t)
    if type(t) ~= "table" then error("getmetatable is for tables", 2) end
    return getmetatable(t)
  end,
  pairs = function(t)
    if not inner[t] then return pairs(t) end
    local all, n = {}, 0
    for k, v in pairs(inner[t]:headers()) do all[#all + 1] = { k, v } end
    return function()
      n = n + 1
      if all[n] then return all[n][1], all[n][2] end
    end
  end,
  pcall = function(f, ...) return passed(pcall(f, ...)) end,
}
env._G = env
for _, library in next, { "io", "package", "require", "module", "dofile", "loadfile", "debug", "newproxy", "ffi" } do
  _G[library] = nil
end

-- What says, to the proxy alone, that a script has failed: its function for answers is not asked about ours.
local failed = "fairway.extension"

local function closed(handle, why)
  handle:streamInfo():dynamicMetadata():set(failed, name, true)
  handle:logErr("HTTPExtension " .. name .. ": " .. gsub(sub(why, 1, 1024), "[%c]", "?"))
  return "an extension failed\n"
end

local chunk, broken = load(source, "=" .. name, "t", env)
if chunk then broken = run(chunk) end
local on_request, on_response = rawget(env, "envoy_on_request"), rawget(env, "envoy_on_response")
if not broken and type(on_request) ~= "function" and type(on_response) ~= "function" then
  broken = "it defines neither envoy_on_request nor envoy_on_response"
end

if broken or type(on_request) == "function" then
  function envoy_on_request(handle)
    local why = broken or run(on_request, of(handle, false))
    if why then handle:respond({ [":status"] = "500" }, closed(handle, why)) end
  end
end

if not broken and type(on_response) == "function" then
  function envoy_on_response(handle)
    local said = handle:streamInfo():dynamicMetadata():get(failed)
    if said and said[name] then return end
    local why = run(on_response, of(handle, true))
    if not why then return end
    -- Nothing of the answer goes on: the script may have been to take something out of it.
    local it, names = handle:headers(), {}
    for k in pairs(it) do names[#names + 1] = k end
    for _, k in next, names do
      if sub(k, 1, 1) ~= ":" then it:remove(k) end
    end
    it:replace(":status", "500")
    handle:body(true):setBytes(closed(handle, why))
  end
end
