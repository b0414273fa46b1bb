// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"maps"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Operators that name both ends of a request.
const (
	logSource = "%FILTER_STATE(" + names.FilterStateSource + ":PLAIN)%"
	// logFrom is the caller's address as the mTLS listener saw it. What Envoy calls the remote address would be what
	// the caller says in x-forwarded-for.
	logFrom        = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"
	logDestination = "%UPSTREAM_METADATA(" + names.MetadataEndpoint + ":" + names.MetadataIdentity + ")%"
	logTarget      = "%UPSTREAM_METADATA(" + names.MetadataEndpoint + ":" + names.MetadataTarget + ")%"
)

// portLog is what each line of a service port has; destination is empty for an endpoint outside the mesh.
func portLog(more map[string]string) map[string]string {
	out := map[string]string{
		"time":        "%START_TIME%",
		"direction":   "waypoint",
		"dialled":     "%REQUESTED_SERVER_NAME%",
		"source":      logSource,
		"destination": logDestination,
		"from":        logFrom,
		"to":          logTarget,
		"received":    "%BYTES_RECEIVED%",
		"sent":        "%BYTES_SENT%",
		"ms":          "%DURATION%",
		"flags":       "%RESPONSE_FLAGS%",
		"failure":     "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
		"cluster":     "%UPSTREAM_CLUSTER%",
	}
	maps.Copy(out, more)
	return out
}

// httpLog is a line per request.
func httpLog() map[string]string {
	return portLog(map[string]string{
		"method":     "%REQ(:METHOD)%",
		"host":       "%REQ(:AUTHORITY)%",
		"path":       "%PATH(NQ:PATH)%", // no query: it may hold secrets
		"protocol":   "%PROTOCOL%",
		"status":     "%RESPONSE_CODE%",
		"grpcStatus": "%GRPC_STATUS_NUMBER%",
		"detail":     "%RESPONSE_CODE_DETAILS%",
		"route":      "%ROUTE_NAME%",
		"tries":      "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
		"requestID":  "%REQ(X-REQUEST-ID)%",
		"dryrun":     envoy.TriedBy,
	})
}

// tcpLog is a line per connection.
func tcpLog() map[string]string {
	return portLog(map[string]string{
		"verdict": envoy.PlainState(names.FilterStateVerdict),
		"dryrun":  envoy.PlainState(names.FilterStateDryRun),
	})
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
