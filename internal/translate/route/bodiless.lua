-- Answers that have no body, for their status or because the request was HEAD, get none, whatever has made one on the
-- way: a client takes what comes behind such a head for the answer to its next request (RFC 9112, 6.3). Likewise of one
-- that is no answer, but said to come before one (1xx): only the application says that, and then it doesn't come by
-- here, unless it takes an upgrade. This is before all that others have a say in, so it sees answers last.

local notes = "fairway.bodiless"

function envoy_on_request(handle)
  local headers, store = handle:headers(), handle:streamInfo():dynamicMetadata()
  store:set(notes, "method", headers:get(":method"))
  store:set(notes, "upgrade", headers:get("upgrade") ~= nil)
end

function envoy_on_response(handle)
  local headers, store = handle:headers(), handle:streamInfo():dynamicMetadata()
  local said, length = store:get(notes) or {}, (store:get("fairway.lengths") or {}).rule
  if length then -- as it was before the rule's authorization service had its say; see lengths.lua
    headers:remove("content-length")
    if length ~= "" then headers:add("content-length", length) end
  end
  local status = headers:get(":status") or ""
  length = headers:get("content-length")
  if not string.find(status, "^[2-9]%d%d$") and not (status == "101" and said.upgrade) then
    headers:replace(":status", "503")
  end
  if status ~= "204" and status ~= "304" and said.method ~= "HEAD" then return end
  local body = handle:body()
  if not body then return end
  body:setBytes("")
  -- Of HEAD and 304 the length is that of an answer to GET. Without any, Envoy would say that it comes in parts.
  headers = handle:headers() -- what was there before the wait is taken back
  if status == "204" then
    headers:remove("content-length")
  else
    headers:replace("content-length", length or "0")
  end
end
