// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"net/http"

	"github.com/vishvananda/netlink"
)

// toRoot lets only processes of root through, as the container runtime is, which forwards ports for people who have the
// right to that. A node's loopback address is that of all pods on the node's network, too.
func toRoot(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ofRoot(r) {
			http.Error(w, "only root on this node may ask here; use kubectl port-forward", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ofRoot asks the kernel whose socket the other end of a local connection is.
func ofRoot(r *http.Request) bool {
	client, err := net.ResolveTCPAddr("tcp", r.RemoteAddr)
	server, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if err != nil || !ok {
		return false
	}
	socket, err := netlink.SocketGet(client, server)
	return err == nil && socket.UID == 0
}
