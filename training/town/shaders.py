"""GLSL shaders of the town: procedural materials, one sun with shadows, haze and a sky with clouds."""

NOISE = """
float hash(vec2 p) { return fract(sin(dot(p, vec2(127.1, 311.7))) * 43758.5453); }
float noise(vec2 p) {
    vec2 i = floor(p), f = fract(p); f = f * f * (3.0 - 2.0 * f);
    return mix(mix(hash(i), hash(i + vec2(1, 0)), f.x),
               mix(hash(i + vec2(0, 1)), hash(i + vec2(1, 1)), f.x), f.y);
}
"""

SHADOW_VERTEX = """
#version 330
uniform mat4 sun;
in vec3 position;
void main() { gl_Position = sun * vec4(position, 1.0); }
"""

SHADOW_FRAGMENT = """
#version 330
void main() {}
"""

VERTEX = """
#version 330
uniform mat4 view_projection;
in vec3 position; in vec3 normal; in vec2 texture_m; in vec3 colour; in float material; in float seed;
out vec3 v_position; out vec3 v_normal; out vec2 v_texture; out vec3 v_colour;
flat out float v_material; flat out float v_seed;
void main() {
    v_position = position; v_normal = normal; v_texture = texture_m; v_colour = colour;
    v_material = material; v_seed = seed;
    gl_Position = view_projection * vec4(position, 1.0);
}
"""

FRAGMENT = (
    """
#version 330
uniform mat4 sun;
uniform vec3 to_sun; uniform vec3 sun_colour; uniform vec3 sky_colour; uniform vec3 eye;
uniform float haze;
uniform sampler2DShadow shadow_map;
in vec3 v_position; in vec3 v_normal; in vec2 v_texture; in vec3 v_colour;
flat in float v_material; flat in float v_seed;
out vec4 result;

"""
    + NOISE
    + """
float sharp(float edge, float x) { float w = fwidth(x) + 1e-5; return smoothstep(edge - w, edge + w, x); }
float inside(vec2 p, vec2 low, vec2 high) {
    return sharp(low.x, p.x) * (1.0 - sharp(high.x, p.x)) * sharp(low.y, p.y) * (1.0 - sharp(high.y, p.y));
}

vec3 facade(vec3 base, float kind) {
    float spacing = mix(1.9, 3.4, fract(v_seed * 7.3));
    vec2 cell_index = floor(vec2(v_texture.x / spacing, v_texture.y / 3.2));
    vec2 cell = vec2(fract(v_texture.x / spacing), fract(v_texture.y / 3.2));
    vec3 wall = base * (0.85 + 0.3 * noise(v_texture * 0.7 + v_seed * 91.0));
    float far = clamp(fwidth(v_texture.y) * 3.0, 0.0, 1.0);
    if (kind < 2.5) {  // brick courses
        float course = sharp(0.75, fract(v_texture.y * 3.0));
        wall *= mix(1.0 - 0.25 * course, 0.95, far);
    } else if (kind > 3.5) {  // glass: wide panes
        wall *= 0.9;
    }
    vec2 low = kind > 3.5 ? vec2(0.06, 0.1) : vec2(0.25 - 0.1 * fract(v_seed * 3.1), 0.28);
    vec2 high = kind > 3.5 ? vec2(0.94, 0.92) : vec2(0.75 + 0.1 * fract(v_seed * 5.7), 0.8);
    float pane = inside(cell, low, high);
    float frame = inside(cell, low - vec2(0.05, 0.03), high + vec2(0.05, 0.03)) - pane;
    float tint = hash(cell_index + v_seed * 57.0);
    vec3 glass = mix(vec3(0.08, 0.1, 0.13), vec3(0.35, 0.42, 0.5), tint * 0.8);
    if (tint > 0.82) glass = vec3(0.7, 0.65, 0.5);  // a drawn blind
    vec3 trim = mix(vec3(0.85), base.bgr * 0.6, fract(v_seed * 11.9));
    vec3 shown = mix(wall, glass, pane);
    shown = mix(shown, trim, frame * 0.8);
    if (v_texture.y < 2.9) {  // ground floor: shop windows and doors
        float shop = floor(v_texture.x / 4.0);
        float shop_hash = hash(vec2(shop, v_seed * 83.0));
        vec2 place = vec2(fract(v_texture.x / 4.0), v_texture.y / 2.9);
        vec3 front = mix(vec3(0.1, 0.11, 0.12), vec3(0.55, 0.4, 0.25), shop_hash);
        shown = mix(wall, front, inside(place, vec2(0.12, 0.15), vec2(0.7, 0.85)));
        shown = mix(shown, fract(vec3(shop_hash * 3.0, shop_hash * 5.0, shop_hash * 7.0)) * 0.7,
                    inside(place, vec2(0.76, 0.0), vec2(0.93, 0.78)));
        shown = mix(shown, fract(vec3(shop_hash * 13.0, shop_hash * 17.0, shop_hash * 19.0)),
                    inside(place, vec2(0.05, 0.88), vec2(0.95, 1.0)));
    }
    return shown;
}

vec3 surface() {
    vec2 ground = v_position.xy;
    bool side = abs(v_normal.z) < 0.5;
    if (v_material < 0.5) {
        float patch_ = noise(ground * 0.15) * 0.25 + noise(ground * 1.3) * 0.15;
        float wear = 0.06 * sharp(0.55, noise(ground * vec2(0.4, 0.4) + 40.0));
        return v_colour * (0.8 + patch_) + wear;
    }
    if (v_material < 1.5) {
        vec2 slab = abs(fract(ground / 1.5) - 0.5);
        float joint = sharp(0.47, max(slab.x, slab.y)) * (1.0 - clamp(fwidth(ground.x) * 2.0, 0.0, 1.0));
        return v_colour * (0.85 + 0.2 * hash(floor(ground / 1.5))) * (1.0 - 0.3 * joint);
    }
    if (v_material < 4.5 && side) return facade(v_colour, v_material);
    if (v_material < 5.5) return v_colour * (0.9 + 0.15 * noise(v_position.xy * 2.0 + v_position.z));
    if (v_material < 6.5) {
        float leaf = noise(v_position.xy * 5.0 + v_position.z * 4.0) + noise(v_position.yz * 3.0);
        return v_colour * (0.5 + 0.6 * leaf);
    }
    return v_colour * (0.7 + 0.35 * noise(ground * 0.8) + 0.2 * noise(ground * 4.0));
}

float lit() {
    vec4 p = sun * vec4(v_position + v_normal * 0.06, 1.0);
    vec3 q = p.xyz * 0.5 + 0.5;
    float sum = 0.0;
    for (int i = -1; i <= 1; i++)
        for (int j = -1; j <= 1; j++)
            sum += texture(shadow_map, vec3(q.xy + vec2(i, j) / 4096.0, q.z - 0.0008));
    return sum / 9.0;
}

void main() {
    vec3 base = surface();
    float direct = max(dot(v_normal, to_sun), 0.0) * lit();
    float ambient = 0.6 + 0.25 * v_normal.z + 0.1 * v_normal.x;
    vec3 light = sun_colour * direct + sky_colour * ambient;
    float distance_ = length(v_position - eye);
    float fog = 1.0 - exp(-distance_ * haze);
    result = vec4(pow(mix(base * light, sky_colour * 1.1, fog), vec3(1.0 / 1.6)), 1.0);
}
"""
)

SKY_VERTEX = """
#version 330
uniform mat4 unproject;
in vec2 corner;
out vec3 direction;
void main() {
    vec4 far = unproject * vec4(corner, 1.0, 1.0);
    direction = far.xyz / far.w;
    gl_Position = vec4(corner, 0.99999, 1.0);
}
"""

SKY_FRAGMENT = (
    """
#version 330
uniform vec3 sky_colour; uniform vec3 to_sun; uniform vec3 sun_colour; uniform float clouds;
in vec3 direction;
out vec4 result;
"""
    + NOISE
    + """
void main() {
    vec3 d = normalize(direction);
    vec3 sky = mix(sky_colour * 1.1, sky_colour * vec3(0.6, 0.75, 1.1), clamp(d.z * 1.6, 0.0, 1.0));
    vec2 at = d.xy / max(d.z, 0.05) + clouds;
    float cover = noise(at) * 0.6 + noise(at * 2.7) * 0.4;
    sky = mix(sky, vec3(dot(sky, vec3(0.45))), smoothstep(0.5, 0.8, cover) * clamp(d.z * 4.0, 0.0, 0.7));
    sky += sun_colour * 0.5 * pow(max(dot(d, to_sun), 0.0), 64.0);
    result = vec4(pow(sky, vec3(1.0 / 1.6)), 1.0);
}
"""
)
