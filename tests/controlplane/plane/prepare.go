package plane

import (
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"scorefront.dev/controlplane/process"
)

const admission = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: PodSecurity
    configuration:
      apiVersion: pod-security.admission.config.k8s.io/v1
      kind: PodSecurityConfiguration
      defaults: {enforce: %[1]s, enforce-version: latest, warn: %[1]s, warn-version: latest}
`

const audit = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    users: [%q]
  - level: None
`

// prepare finds binaries and ports, and writes every file that a part reads at its start.
func (p *Plane) prepare() (err error) {
	if p.config.PodSecurity == "" {
		p.config.PodSecurity = "privileged"
	}
	if p.binaries, err = Binaries(p.config.Version, needed...); err != nil {
		return err
	}
	for _, port := range []*int{&p.ports.etcd, &p.ports.peer, &p.ports.api} {
		if *port, err = process.FreePort(); err != nil {
			return err
		}
	}
	if p.authority, err = newAuthority(); err != nil {
		return err
	}
	api, err := p.authority.server()
	if err != nil {
		return err
	}
	accounts, err := p.authority.issue(blank("service accounts"))
	if err != nil {
		return err
	}
	files := map[string]string{
		"ca.crt": string(p.authority.certificate), "api.crt": string(api.certificate), "api.key": string(api.key),
		"accounts.key":   string(accounts.key),
		"admission.yaml": fmt.Sprintf(admission, p.config.PodSecurity),
		"audit.yaml":     fmt.Sprintf(audit, p.config.Audited),
	}
	for name, text := range files {
		if err := p.write(name, text); err != nil {
			return err
		}
	}
	return p.prepareAdmin()
}

func (p *Plane) prepareAdmin() error {
	admin, err := p.authority.client("admin", "system:masters")
	if err != nil {
		return err
	}
	p.Kubeconfig = p.path("admin.kubeconfig")
	user := clientcmdapi.AuthInfo{ClientCertificateData: admin.certificate, ClientKeyData: admin.key}
	if err := p.WriteKubeconfig(p.Kubeconfig, p.APIServer(), &user); err != nil {
		return err
	}
	p.Admin = &rest.Config{
		Host: "https://" + p.APIServer(), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: p.authority.certificate, CertData: admin.certificate, KeyData: admin.key,
		},
	}
	p.Client, err = kubernetes.NewForConfig(p.Admin)
	return err
}

// WriteKubeconfig writes a kubeconfig for a user who reaches the API server at an address of loopback.
func (p *Plane) WriteKubeconfig(path, address string, user *clientcmdapi.AuthInfo) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{
		Server: "https://" + address, CertificateAuthorityData: p.authority.certificate,
	}
	config.AuthInfos["test"] = user
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	return clientcmd.WriteToFile(*config, path)
}
