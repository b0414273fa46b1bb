// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"maps"
	"strconv"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Operators that name both ends of a request.
const (
	logSource = "%FILTER_STATE(" + names.FilterStateSource + ":PLAIN)%"
	// logFrom is the caller's address as the mTLS listener saw it. What Envoy calls the remote address would be what
	// the caller says in x-forwarded-for.
	logFrom        = "%FILTER_STATE(" + filterStateRemoteAddress + ":PLAIN)%"
	logDestination = "%UPSTREAM_METADATA(" + names.MetadataTunnel + ":" + names.MetadataIdentity + ")%"
)

// serviceLog is what each line of a service port has; destination is empty for an endpoint outside the mesh.
func serviceLog(p model.ServicePort, more map[string]string) map[string]string {
	out := map[string]string{
		"time":        "%START_TIME%",
		"direction":   "waypoint",
		"service":     p.Namespace + "/" + p.Service,
		"port":        strconv.Itoa(int(p.Port)),
		"source":      logSource,
		"destination": logDestination,
		"from":        logFrom,
		"to":          "%UPSTREAM_METADATA(" + names.MetadataTunnel + ":" + names.MetadataTarget + ")%",
		"received":    "%BYTES_RECEIVED%",
		"sent":        "%BYTES_SENT%",
		"ms":          "%DURATION%",
		"flags":       "%RESPONSE_FLAGS%",
		"failure":     "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
	maps.Copy(out, more)
	return out
}

// httpLog is a line per request.
func httpLog(p model.ServicePort) map[string]string {
	return serviceLog(p, map[string]string{
		"method":     "%REQ(:METHOD)%",
		"host":       "%REQ(:AUTHORITY)%",
		"path":       "%PATH(NQ:PATH)%", // no query: it may hold secrets
		"protocol":   "%PROTOCOL%",
		"status":     "%RESPONSE_CODE%",
		"grpcStatus": "%GRPC_STATUS_NUMBER%",
		"detail":     "%RESPONSE_CODE_DETAILS%",
		"route":      "%ROUTE_NAME%",
		"cluster":    "%UPSTREAM_CLUSTER%",
		"tries":      "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
		"requestID":  "%REQ(X-REQUEST-ID)%",
	})
}

// tcpLog is a line per connection.
func tcpLog(p model.ServicePort) map[string]string {
	return serviceLog(p, map[string]string{"cluster": "%UPSTREAM_CLUSTER%"})
}

// silentLog is a line per connection that was closed because no request began.
func silentLog(p model.ServicePort) map[string]string {
	return serviceLog(p, map[string]string{"detail": "no HTTP request began within " + silenceTimeout.String()})
}

// refusedLog is a line per connection of a caller that was not served.
func refusedLog() map[string]string {
	return map[string]string{
		"time":      "%START_TIME%",
		"direction": "waypoint-mtls",
		"source":    "%DOWNSTREAM_PEER_URI_SAN%",
		"dialled":   "%REQUESTED_SERVER_NAME%",
		"from":      "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
		"failure":   "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
		"flags":     "%RESPONSE_FLAGS%",
	}
}

// tunnelLog is a line per failed connection to a pod: here is the reason for which a service port's request failed.
func tunnelLog() map[string]string {
	metadata := func(key string) string { return "%DYNAMIC_METADATA(" + names.MetadataTunnel + ":" + key + ")%" }
	return map[string]string{
		"time":        "%START_TIME%",
		"direction":   "waypoint-tunnel",
		"destination": metadata(names.MetadataIdentity),
		"dialled":     metadata(names.MetadataTarget),
		"to":          metadata(names.MetadataMTLS),
		"ms":          "%DURATION%",
		"flags":       "%RESPONSE_FLAGS%",
		"failure":     "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
}
