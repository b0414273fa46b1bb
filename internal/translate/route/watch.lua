-- What is before and behind the module of an HTTPExtension, `place` "first" and "second": requests come by the first,
-- answers by the second. Either notes what no module may change, and the other one refuses what was changed. What the
-- module answers by itself it says in headers, which the second one makes an answer of. `name` is the extension's, and
-- `unframed` that the module is shown the body of what comes by here on its way to it. What fails here lets nothing pass,
-- where Envoy would log it and go on. Envoy also goes on without a module that its thread could not start: so a module
-- changes header `mark` from `unmarked` where it is `asked` first, in the request or the answer.

local find, sub, lower, gsub, tonumber = string.find, string.sub, string.lower, string.gsub, tonumber
local pairs, ipairs, pcall, tostring, concat = pairs, ipairs, pcall, tostring, table.concat

local longest_name, longest_value, more, longest_body = 256, 65536, 256, 1024 * 1024

-- What one script tells the other one, which no module can read or write.
local notes = "fairway.module"

-- Headers that say who calls, where a message ends, or what the proxy is to do: those of the sandbox, and more of who
-- calls. Some applications take an underscore for a hyphen.
local kept = {
  ["host"] = true, ["connection"] = true, ["content-length"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

local function keeps(header)
  if sub(header, 1, 1) == ":" then return true end
  local as = gsub(lower(header), "_", "-")
  return kept[as] or find(as, "^x%-forwarded%-") or find(as, "^x%-envoy%-") or find(as, "^x%-fairway%-")
end

-- list is all headers: Envoy has none changed while some loop over them isn't at its end.
local function list(headers)
  local out = {}
  for k, v in pairs(headers) do out[#out + 1] = { k, v } end
  return out
end

-- seen are all headers of a list that are kept, in one text. The status of an answer may be changed.
local function seen(all, answer)
  local out = {}
  for _, h in ipairs(all) do
    local k, v = h[1], h[2]
    if keeps(k) and not (answer and k == ":status") then
      out[#out + 1] = #k .. ":" .. k .. #v .. ":" .. v
    end
  end
  return concat(out)
end

local function note(handle, answer)
  local all = list(handle:headers())
  local store = handle:streamInfo():dynamicMetadata()
  store:set(notes, answer and "answer" or "request", handle:base64Escape(seen(all, answer)) .. " " .. #all)
end

local function noted(handle, answer)
  local store, key = handle:streamInfo():dynamicMetadata(), answer and "answer" or "request"
  local said = (store:get(notes) or {})[key]
  store:set(notes, key, "")
  local _, _, what, n = find(said or "", "^(%S*) (%d+)$")
  return what, tonumber(n)
end

local function written(header, value)
  if #header > longest_name or not find(header, "^[%w!#$%%&'*+.^_`|~-]+$") then return false end
  return #value <= longest_value and not find(value, "[%z\1-\8\10-\31\127]")
end

local function status(text)
  local n = find(text or "", "^%d%d%d$") and tonumber(text)
  return n and n >= 200 and n <= 599 and text
end

-- expect has a module that is asked here mark what it is shown.
local function expect(headers, at)
  if asked == at then headers:replace(mark, unmarked) end
end

-- absent says that no module was asked here that should have been.
local function absent(headers, at)
  local said = headers:get(mark)
  headers:remove(mark)
  if asked == at and said == unmarked then return "this thread of the proxy could not start the module" end
end

-- wrong says what is wrong with what a module made of headers; nil if nothing is.
local function wrong(handle, answer)
  local before, most = noted(handle, answer)
  local all = list(handle:headers())
  if not before or handle:base64Escape(seen(all, answer)) ~= before then
    return "it changed a header that is not for extensions"
  end
  if #all > most + more then return "it added too many headers" end
  local code
  for _, h in ipairs(all) do
    if h[1] == ":status" then code = h[2] end
    if sub(h[1], 1, 1) ~= ":" and not written(h[1], h[2]) then return "it wrote a header that can't be one" end
  end
  if answer and not status(code) then return "it made a status that is none from 200 to 599" end
end

local function say(handle, why) handle:logErr("HTTPExtension " .. name .. ": " .. tostring(why)) end

-- answered is what a module answers by itself, in headers of the request; nil if it doesn't.
local function answered(headers)
  local with, body = { [":status"] = headers:get(":status") }, headers:get(":body")
  if not with[":status"] then return nil end
  local bad = not status(with[":status"]) or #(body or "") > longest_body
  for _, h in ipairs(list(headers)) do
    local _, _, header = find(h[1], "^:answer%-(.+)$")
    if header then
      bad = bad or keeps(header) or not written(header, h[2]) or with[header]
      with[header] = h[2]
    end
  end
  if bad then return nil, "what it answers is no answer" end
  return with, nil, body
end

local failed = "an extension failed\n"

-- refuse says why a request goes no further.
local function refuse(handle, why)
  say(handle, why)
  handle:respond({ [":status"] = "500" }, failed)
end

local function unframe(headers)
  if unframed then headers:remove("content-length") end
end

-- Who calls is for the module alone to know.
local caller = "x-fairway-caller"

local function request_to(handle)
  local headers, ssl = handle:headers(), handle:streamInfo():downstreamSslConnection()
  local names = ssl and ssl:uriSanPeerCertificate()
  headers:replace(caller, names and names[1] or "")
  unframe(headers)
  note(handle, false)
  expect(headers, "request")
end

local function request_from(handle)
  local missing = absent(handle:headers(), "request")
  local with, why, body = answered(handle:headers())
  why = missing or why or not with and wrong(handle, false)
  handle:headers():remove(caller)
  return why, with, body
end

local function answer_to(handle)
  unframe(handle:headers())
  note(handle, true)
  expect(handle:headers(), "answer")
end

local function answer_from(handle)
  return absent(handle:headers(), "answer") or wrong(handle, true)
end

if place == "first" then
  function envoy_on_request(handle)
    local ok, why = pcall(request_to, handle)
    if not ok then refuse(handle, why) end
  end

  function envoy_on_response(handle)
    local ok, why = pcall(answer_from, handle)
    if ok and not why then return end
    say(handle, why)
    -- Nothing of the answer goes on: the module may have been to take something out of it.
    local headers = handle:headers()
    for _, h in ipairs(list(headers)) do
      if h[1] ~= ":status" then headers:remove(h[1]) end
    end
    headers:replace(":status", "500")
    handle:body(true):setBytes(failed)
  end
else
  function envoy_on_request(handle)
    local ok, why, with, body = pcall(request_from, handle)
    if why or not ok then
      refuse(handle, why)
    elseif with then
      handle:respond(with, body or "")
    end
  end

  function envoy_on_response(handle)
    -- Without a note the first script lets nothing pass.
    local ok, why = pcall(answer_to, handle)
    if not ok then say(handle, why) end
  end
end
