-- Answers that have no body, for their status or because the request was HEAD, get none, whatever has made one on the
-- way: a client takes what comes behind such a head for the answer to its next request (RFC 9112, 6.3). This is before
-- all that others have a say in, so it sees answers last.

local notes = "fairway.bodiless"

function envoy_on_request(handle)
  handle:streamInfo():dynamicMetadata():set(notes, "method", handle:headers():get(":method"))
end

function envoy_on_response(handle)
  local said = handle:streamInfo():dynamicMetadata():get(notes)
  local status, length = handle:headers():get(":status"), handle:headers():get("content-length")
  if status ~= "204" and status ~= "304" and not (said and said.method == "HEAD") then return end
  local body = handle:body()
  if not body then return end
  body:setBytes("")
  -- Of HEAD and 304 the length is that of an answer to GET. Without any, Envoy would say that it comes in parts.
  if status == "204" then
    handle:headers():remove("content-length")
  else
    handle:headers():replace("content-length", length or "0")
  end
end
