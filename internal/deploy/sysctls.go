// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// labelEnforceVersion is by which version of the Pod Security Standards a namespace judges its pods.
const labelEnforceVersion = "pod-security.kubernetes.io/enforce-version"

// tcpMemorySafe is the first version of the Pod Security Standards whose levels "baseline" and "restricted" let pods
// set net.ipv4.tcp_wmem. Kubelets do since the same version of Kubernetes.
var tcpMemorySafe = version.MajorMinor(1, 32)

// SendBuffers says whether pods of a namespace may choose how large the buffers of their sockets are. All do that the
// mesh runs in, unless a namespace judges its pods by an old version of the standards: it would refuse them.
func SendBuffers(namespace *corev1.Namespace) bool {
	v, err := version.ParseGeneric(namespace.Labels[labelEnforceVersion])
	return err != nil || v.AtLeast(tcpMemorySafe) // none, or "latest"
}

// sysctls give the sockets of a waypoint room for the ends of streams (envoy.SendBuffer) from their beginning: least,
// initial and largest size in bytes (tcp(7)). Node proxies ask for it socket by socket, with a capability that a
// waypoint doesn't have.
func (w Waypoint) sysctls() []corev1.Sysctl {
	if !w.SendBuffers {
		return nil
	}
	const least = 4 << 10
	value := fmt.Sprintf("%d %d %d", least, envoy.SendBuffer, envoy.SendBuffer)
	return []corev1.Sysctl{{Name: "net.ipv4.tcp_wmem", Value: value}}
}
