// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package names

import "strings"

// Configurations of filters (ECDS) that decide who may come in.
const (
	authorizationPrefix = "authorization/"
	// AuthorizationTCP is a waypoint's, for the ports that it passes on as they are.
	AuthorizationTCP = authorizationPrefix + "tcp"
)

// PodAuthorization names the guard of a pod in the scope of its node.
func PodAuthorization(namespace, pod string) string {
	return authorizationPrefix + namespace + "/" + pod
}

// ParsePodAuthorization is the inverse of PodAuthorization.
func ParsePodAuthorization(name string) (namespace, pod string, ok bool) {
	rest, ok := strings.CutPrefix(name, authorizationPrefix)
	if !ok {
		return "", "", false
	}
	namespace, pod, ok = strings.Cut(rest, "/")
	return namespace, pod, ok && namespace != "" && pod != "" && !strings.Contains(pod, "/")
}
