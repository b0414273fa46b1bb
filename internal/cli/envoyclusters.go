// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// envoyAddress is envoy.config.core.v3.Address as JSON.
type envoyAddress struct {
	SocketAddress *struct {
		Address   string `json:"address"`
		PortValue uint32 `json:"port_value"`
		Netns     string `json:"network_namespace_filepath"`
	} `json:"socket_address"`
	Internal *struct {
		Listener string `json:"server_listener_name"`
		Endpoint string `json:"endpoint_id"`
	} `json:"envoy_internal_address"`
	Pipe *struct {
		Path string `json:"path"`
	} `json:"pipe"`
}

func (a envoyAddress) String() string {
	switch {
	case a.SocketAddress != nil:
		return net.JoinHostPort(a.SocketAddress.Address, strconv.Itoa(int(a.SocketAddress.PortValue)))
	case a.Internal != nil && a.Internal.Endpoint != "":
		return a.Internal.Endpoint + " by listener " + a.Internal.Listener
	case a.Internal != nil:
		return "listener " + a.Internal.Listener
	case a.Pipe != nil:
		return a.Pipe.Path
	}
	return "-"
}

// envoyClusters is envoy.admin.v3.Clusters as JSON; 64-bit numbers are strings there.
type envoyClusters struct {
	Clusters []envoyCluster `json:"cluster_statuses"`
}

type envoyCluster struct {
	Name  string      `json:"name"`
	Hosts []envoyHost `json:"host_statuses"`
}

type envoyHost struct {
	Address envoyAddress `json:"address"`
	Stats   []struct {
		Name  string      `json:"name"`
		Value json.Number `json:"value"`
	} `json:"stats"`
	Health map[string]any `json:"health_status"`
}

// stat is a counter or gauge of the endpoint; what was never counted is missing, and zero.
func (h envoyHost) stat(name string) string {
	for _, s := range h.Stats {
		if s.Name == name && s.Value != "" {
			return s.Value.String()
		}
	}
	return "0"
}

func drawClusters(t *table, section json.RawMessage, _ filter, _ time.Time) error {
	var c envoyClusters
	if err := json.Unmarshal(section, &c); err != nil {
		return fmt.Errorf("its clusters can't be read: %w", err)
	}
	slices.SortFunc(c.Clusters, func(a, b envoyCluster) int { return cmp.Compare(a.Name, b.Name) })
	var rows [][]string
	for _, c := range c.Clusters {
		if len(c.Hosts) == 0 {
			rows = append(rows, []string{c.Name, "none", "-", "-", "-", "-", "-"})
		}
		for _, h := range c.Hosts {
			rows = append(rows, []string{
				c.Name, h.Address.String(), health(h.Health),
				h.stat("cx_active"), h.stat("cx_total"), h.stat("cx_connect_fail"), h.stat("rq_total"),
			})
		}
	}
	t.rows([]string{"CLUSTER", "ENDPOINT", "HEALTH", "CONNECTIONS", "OPENED", "FAILED", "REQUESTS"}, rows)
	return nil
}

// health says what is wrong with an endpoint (envoy.admin.v3.HostHealthStatus).
func health(status map[string]any) string {
	var bad []string
	for key, value := range status {
		switch v := value.(type) {
		case bool:
			if v {
				bad = append(bad, strings.TrimPrefix(key, "failed_"))
			}
		case string:
			if key == "eds_health_status" && v != "HEALTHY" && v != "UNKNOWN" {
				bad = append(bad, strings.ToLower(v))
			}
		}
	}
	if len(bad) == 0 {
		return "healthy"
	}
	slices.Sort(bad)
	return strings.Join(bad, ",")
}
