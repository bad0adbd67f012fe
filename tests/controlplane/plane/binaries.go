package plane

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Version is the Kubernetes that is in go.mod; any other is built from a module graph made for it.
const Version = "v1.37.2"

const project = "k8s.io/kubernetes"

// Programs are all that can be built.
var Programs = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"}

// packages are where they are.
var packages = map[string]string{
	"etcd":                    "scorefront.dev/controlplane/cmd/etcd",
	"kube-apiserver":          project + "/cmd/kube-apiserver",
	"kube-controller-manager": project + "/cmd/kube-controller-manager",
	"kubectl":                 project + "/cmd/kubectl",
}

var release = regexp.MustCompile(`^v1\.(\d+)\.(\d+)$`)

// needed are the programs of a control plane.
var needed = []string{"etcd", "kube-apiserver", "kube-controller-manager"}

// Build builds what Start needs and is not there yet.
func Build(version string) error {
	_, err := Binaries(version, needed...)
	return err
}

// Binaries gives the path of each named program, after building what is not there yet.
//
// Those in the folder KUBEBUILDER_ASSETS are taken before all others, as envtest has it.
func Binaries(version string, names ...string) (map[string]string, error) {
	found := map[string]string{}
	root, err := Repository()
	if err != nil {
		return nil, err
	}
	if !release.MatchString(version) {
		return nil, fmt.Errorf("version %q of Kubernetes: it looks like %s", version, Version)
	}
	cache := filepath.Join(root, "target", "controlplane", version)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	var missing []string
	for _, name := range names {
		if packages[name] == "" {
			return nil, fmt.Errorf("no program %q; there are: %s", name, strings.Join(Programs, ", "))
		}
		path := filepath.Join(cache, name)
		if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" && isFile(filepath.Join(assets, name)) {
			path = filepath.Join(assets, name)
		} else if !isFile(path) {
			missing = append(missing, name)
		}
		found[name] = path
	}
	if len(missing) == 0 {
		return found, nil
	}
	fmt.Fprintf(os.Stderr, "building %s of Kubernetes %s, once: this takes minutes\n", strings.Join(missing, ", "), version)
	return found, build(filepath.Join(root, "tests", "controlplane"), cache, version, missing)
}

// Repository is the top folder of the project.
func Repository() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; folder != "/"; folder = filepath.Dir(folder) {
		if isFile(filepath.Join(folder, "Cargo.toml")) && isFile(filepath.Join(folder, "tests/controlplane/go.mod")) {
			return folder, nil
		}
	}
	return "", fmt.Errorf("run it from within the repository: no Cargo.toml is above the working folder")
}

// build compiles programs into the cache. A program appears there when it is complete.
func build(module, cache, version string, names []string) error {
	unfinished, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	var foreign []string
	for _, name := range names {
		if name == "etcd" {
			// etcd is ours, of one version for every Kubernetes.
			if err := compile(module, unfinished, version, "", packages[name]); err != nil {
				return err
			}
			continue
		}
		foreign = append(foreign, packages[name])
	}
	if len(foreign) > 0 {
		mode := ""
		if version != Version {
			if module, err = moduleOf(version, unfinished); err != nil {
				return err
			}
			mode = "-mod=mod"
		}
		if err := compile(module, unfinished, version, mode, foreign...); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(unfinished, name), filepath.Join(cache, name)); err != nil {
			return err
		}
	}
	return nil
}

func compile(module, target, version, mode string, targets ...string) error {
	// What a release says of itself; without it the API server calls itself v0.0.0.
	parts := release.FindStringSubmatch(version)
	stamp := fmt.Sprintf("-s -w -X k8s.io/component-base/version.gitVersion=%s"+
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=%s", version, parts[1])
	arguments := []string{"build", "-buildvcs=false", "-ldflags=" + stamp, "-o", target + "/"}
	if mode != "" {
		arguments = append(arguments, mode)
	}
	command := exec.Command("go", append(arguments, targets...)...)
	command.Dir = module
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("go build %s: %w", strings.Join(targets, " "), err)
	}
	return nil
}

// moduleOf makes a module whose only purpose is to build another version: its staging modules, which the module
// of Kubernetes replaces by folders that are not in it, are replaced by those of the same release.
func moduleOf(version, folder string) (string, error) {
	module := filepath.Join(folder, "module")
	if err := os.Mkdir(module, 0o755); err != nil {
		return "", err
	}
	download := exec.Command("go", "mod", "download", "-json", project+"@"+version)
	download.Dir, download.Env = module, append(os.Environ(), "GOFLAGS=-modcacherw", "GOWORK=off")
	said, err := download.Output()
	var downloaded struct{ GoMod, Error string }
	if err := json.Unmarshal(said, &downloaded); err != nil || downloaded.Error != "" {
		return "", fmt.Errorf("%s@%s: %s", project, version, downloaded.Error)
	}
	if err != nil {
		return "", err
	}
	original, err := os.Open(downloaded.GoMod)
	if err != nil {
		return "", err
	}
	defer original.Close()
	staging := regexp.MustCompile(`^\s*(?:replace\s+)?(\S+) => \./staging/`)
	var text strings.Builder
	fmt.Fprintf(&text, "module build\n\ngo 1.26.0\n\nrequire %s %s\n\nreplace (\n", project, version)
	lines := bufio.NewScanner(original)
	for lines.Scan() {
		if found := staging.FindStringSubmatch(lines.Text()); found != nil {
			fmt.Fprintf(&text, "\t%s => %s v0%s\n", found[1], found[1], strings.TrimPrefix(version, "v1"))
		}
	}
	text.WriteString(")\n")
	return module, os.WriteFile(filepath.Join(module, "go.mod"), []byte(text.String()), 0o644)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// lock keeps others from building the same at the same time.
func lock(path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { file.Close() }, nil
}
