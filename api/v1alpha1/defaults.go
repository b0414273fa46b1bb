// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"cmp"
	"time"
)

// Defaults of what has none in the schema, because a default there would claim the field for the user's manifest.
const (
	// DefaultLeafLifetime is Certificates.LeafLifetime.
	DefaultLeafLifetime = 24 * time.Hour
	// DefaultWorkloadSocket is SPIRECertificates.WorkloadSocket.
	DefaultWorkloadSocket = "spire-agent.sock"
	// DefaultLogLevel is the LogLevel of every proxy.
	DefaultLogLevel LogLevel = "warning"
	// DefaultConcurrency is the number of worker threads of every proxy.
	DefaultConcurrency int32 = 2
	// DefaultAddressesPerPod is Node.AddressesPerPod.
	DefaultAddressesPerPod int32 = 4000
	// DefaultConnectionsPerPeer is Node.ConnectionsPerPeer: an eighth of what a pod takes of all peers.
	DefaultConnectionsPerPeer int32 = 2048
	// DefaultNodeDrainTimeout is Node.DrainTimeout.
	DefaultNodeDrainTimeout = time.Hour
	// DefaultDrainTimeout is ProxyParametersSpec.DrainTimeout. The schema's CEL rules know it.
	DefaultDrainTimeout = 30 * time.Second
	// DefaultGraceAfterDrain is by how much ProxyParametersSpec.TerminationGracePeriod is longer than the drain timeout.
	// Not more: a namespace that is deleted is looked at again after half the grace period, however soon its pods went.
	DefaultGraceAfterDrain = 10 * time.Second
	// DefaultMinReplicas, DefaultMaxReplicas and DefaultTargetCPU are the fields of Autoscaling.
	DefaultMinReplicas int32 = 1
	DefaultMaxReplicas int32 = 10
	DefaultTargetCPU   int32 = 80
	// DefaultHeaderKiB and DefaultHeaderCount are the fields of HeaderLimits: as much as Go's server takes, which takes
	// more than other common ones.
	DefaultHeaderKiB   int32 = 1024
	DefaultHeaderCount int32 = 10000
)

// LeafLifetime is how long certificates of identities live.
func (s *MeshSpec) LeafLifetime() time.Duration {
	if s.Certificates == nil || s.Certificates.LeafLifetime == nil {
		return DefaultLeafLifetime
	}
	return s.Certificates.LeafLifetime.Duration
}

// SPIRE says where SPIRE's agents are found; nil where identities are of another source.
func (s *MeshSpec) SPIRE() *SPIRECertificates {
	if s.Certificates == nil {
		return nil
	}
	return s.Certificates.SPIRE
}

// SetDefaults fills in what the schema's defaults would.
func (c *SPIRECertificates) SetDefaults() {
	c.WorkloadSocket = cmp.Or(c.WorkloadSocket, DefaultWorkloadSocket)
}

// AddressesPerPod is how many addresses one pod may dial within an hour, in each IP family.
func (s *MeshSpec) AddressesPerPod() int32 {
	if s.Node == nil || s.Node.AddressesPerPod == nil {
		return DefaultAddressesPerPod
	}
	return *s.Node.AddressesPerPod
}

// SameNodeDirect tells whether connections between pods of one node may go through their proxy once.
func (s *MeshSpec) SameNodeDirect() bool { return s.Node != nil && s.Node.SameNode == SameNodeDirect }

// ConnectionsPerPeer is how many connections one address may have open to one captured pod.
func (s *MeshSpec) ConnectionsPerPeer() int32 {
	if s.Node == nil || s.Node.ConnectionsPerPeer == nil {
		return DefaultConnectionsPerPeer
	}
	return *s.Node.ConnectionsPerPeer
}

// NodeDrainTimeout is how long connections of a node proxy live on once another has taken over.
func (s *MeshSpec) NodeDrainTimeout() time.Duration {
	if s.Node == nil || s.Node.DrainTimeout == nil {
		return DefaultNodeDrainTimeout
	}
	return s.Node.DrainTimeout.Duration
}

// SetDefaults fills in what the schema's defaults would.
func (a *Autoscaling) SetDefaults() {
	if a.MinReplicas == 0 {
		a.MinReplicas = DefaultMinReplicas
	}
	if a.MaxReplicas == 0 {
		a.MaxReplicas = max(DefaultMaxReplicas, a.MinReplicas)
	}
	if a.TargetCPU == 0 {
		a.TargetCPU = DefaultTargetCPU
	}
}

// SetDefaults fills in what the schema's defaults would.
func (l *HeaderLimits) SetDefaults() {
	l.SizeKiB = cmp.Or(l.SizeKiB, DefaultHeaderKiB)
	l.Count = cmp.Or(l.Count, DefaultHeaderCount)
}
