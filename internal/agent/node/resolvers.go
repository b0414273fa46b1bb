// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Resolvers are the name servers of a resolv.conf. That of the agent's own pod is made by the node's kubelet as for
// every pod that asks the cluster's DNS (dnsPolicy ClusterFirstWithHostNet), so it names the resolvers of this node's
// pods, be it the cluster's Service or a cache on the node.
func Resolvers(path string) ([]netip.Addr, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read which resolvers the pods of this node have: %w", err)
	}
	var out []netip.Addr
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && !slices.Contains(out, a.Unmap().WithZone("")) {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	return out, nil
}
